/* One whole update inside the emulator, each call of the library counted in instructions.
 *
 * The emulator runs with -icount shift=4: an instruction takes 16 ns of its time, a tick of the 25 MHz timer two
 * and a half. The harness lays the air into memory: the session, then { number u16, data } of every fragment that
 * is not lost. Each line that is said is: name, calls, instructions in all, at most in one call, and at most
 * without a call of port->idle, which is what a watchdog must wait for.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mps2.h"
#include "sow_core_private.h"

#define REG(addr) (*(volatile uint32_t *)(addr))
#define TIMER_CTRL REG(0x40000000u)
#define TIMER_VALUE REG(0x40000004u)
#define TIMER_RELOAD REG(0x40000008u)

#define AIR 0x21100000u

struct air {
    uint32_t fragments; /* on the air */
    uint16_t nb_frag;
    uint8_t frag_size, padding;
    uint8_t mic[4];
};

struct figure {
    const char *name;
    uint32_t calls, total, most, gap;
};

enum { SESSION, UNCODED, CODED, OPEN, INSTALL, BOOT, TRIAL, CONFIRM, WORK, FIGURES = WORK + SOW_CORE_HASH + 1 };

static struct figure figures[FIGURES] = {
    [SESSION] = {.name = "session"},
    [UNCODED] = {.name = "fragment-uncoded"},
    [CODED] = {.name = "fragment-coded"},
    [OPEN] = {.name = "open-collecting"},
    [INSTALL] = {.name = "install"},
    [BOOT] = {.name = "boot-swap"},
    [TRIAL] = {.name = "boot-trial"},
    [CONFIRM] = {.name = "confirm"},
    [WORK + SOW_CORE_ERASE] = {.name = "work-erase"},
    [WORK + SOW_CORE_COLLECT] = {.name = "work-judge-early"},
    [WORK + SOW_CORE_WRITE] = {.name = "work-patch"},
    [WORK + SOW_CORE_SOLVE] = {.name = "work-solve"},
    [WORK + SOW_CORE_CHECK] = {.name = "work-check"},
    [WORK + SOW_CORE_MIC] = {.name = "work-mic"},
    [WORK + SOW_CORE_JUDGE] = {.name = "work-judge"},
    [WORK + SOW_CORE_DIGEST] = {.name = "work-digest"},
    [WORK + SOW_CORE_ASK] = {.name = "work-ask"},
    [WORK + SOW_CORE_HASH] = {.name = "work-hash"},
};

static struct {
    struct sow_port port;
    struct sow_identity identity;
    struct sow_core core;
    uint8_t arena[18u * 1024u] __attribute__((aligned(8)));
    uint32_t began, kicked, gap;
} app;

static uint32_t ticks(void)
{
    return 0u - TIMER_VALUE;
}

static void kick(void)
{
    uint32_t now = ticks();

    if (now - app.kicked > app.gap) {
        app.gap = now - app.kicked;
    }
    app.kicked = now;
}

static void idle(void *user)
{
    (void)user;
    kick();
}

static void begin(void)
{
    app.began = app.kicked = ticks();
    app.gap = 0;
}

static void end(uint32_t what)
{
    struct figure *f = &figures[what];
    uint32_t took;

    kick();
    took = app.kicked - app.began;
    f->calls++;
    f->total += took;
    if (took > f->most) {
        f->most = took;
    }
    if (app.gap > f->gap) {
        f->gap = app.gap;
    }
}

static uint32_t put_number(char *line, uint32_t n, uint32_t value)
{
    uint32_t unit = 1000000000u;

    line[n++] = ' ';
    while (unit > 1u && value < unit) {
        unit /= 10u;
    }
    for (; unit != 0u; unit /= 10u) {
        line[n++] = (char)('0' + value / unit % 10u);
    }
    return n;
}

static uint32_t instructions(uint32_t t)
{
    return t * 2u + t / 2u;
}

static void say(const struct figure *f)
{
    char line[96];
    uint32_t n = (uint32_t)strlen(f->name);

    memcpy(line, f->name, n);
    n = put_number(line, n, f->calls);
    n = put_number(line, n, instructions(f->total));
    n = put_number(line, n, instructions(f->most));
    n = put_number(line, n, instructions(f->gap));
    line[n++] = '\n';
    mps2_uart_write((const uint8_t *)line, n);
}

static int work(void)
{
    uint32_t phase = app.core.at.phase;
    int r;

    begin();
    r = sow_core_work(&app.core);
    if (phase != SOW_CORE_COLLECT || r != SOW_OK) {
        end(WORK + phase);
    }
    return r;
}

static int update(const struct sow_config *config, const struct air *air)
{
    const uint8_t *p = (const uint8_t *)(air + 1);
    struct sow_session s;
    uint32_t entry;
    int r;

    if ((r = sow_core_open(&app.core, config, app.arena, sizeof app.arena)) < 0) {
        return r;
    }
    memset(&s, 0, sizeof s);
    s.matrix = SOW_MATRIX_V2;
    s.nb_frag = air->nb_frag;
    s.frag_size = air->frag_size;
    s.padding = air->padding;
    s.has_mic = 1;
    s.session_cnt = 1;
    memcpy(s.mic, air->mic, sizeof s.mic);
    memcpy(s.descriptor, "\1\1\0\0", 4);
    begin();
    r = sow_core_session(&app.core, &s);
    end(SESSION);
    while (r >= 0 && (r = work()) == SOW_MORE) {
    }
    for (uint32_t i = 0; i < air->fragments && r >= 0 && r != SOW_DONE; i++, p += 2u + air->frag_size) {
        uint16_t n = (uint16_t)(p[0] | p[1] << 8);

        if (i == air->fragments - 1u) { /* a reset, with all but one fragment in flash */
            begin();
            r = sow_core_open(&app.core, config, app.arena, sizeof app.arena);
            end(OPEN);
        }
        begin();
        r = sow_core_fragment(&app.core, 0, n, p + 2, air->frag_size);
        end(n <= air->nb_frag ? UNCODED : CODED);
        while (r == SOW_MORE && work() == SOW_MORE) {
        }
    }
    while (r >= 0 && (r = work()) == SOW_MORE) {
    }
    if (r != SOW_DONE) {
        return r < 0 ? r : -100;
    }
    begin();
    r = sow_core_install(&app.core);
    end(INSTALL);
    if (r < 0) {
        return r;
    }
    begin();
    r = sow_boot(config, &entry);
    end(BOOT);
    if (r < 0) {
        return r;
    }
    begin();
    r = sow_boot(config, &entry);
    end(TRIAL);
    begin();
    r |= sow_boot_confirm(config);
    end(CONFIRM);
    return r;
}

int main(void)
{
    struct figure code = {.name = "code"};
    uint32_t seed;
    int r = -101;

    mps2_init();
    TIMER_RELOAD = 0xffffffffu;
    TIMER_VALUE = 0xffffffffu;
    TIMER_CTRL = 1u;
    if (mps2_factory(&app.identity, &seed) == 0) {
        struct sow_config config = {&app.port, &mps2_map, &app.identity};

        mps2_port(&app.port);
        app.port.idle = idle;
        r = update(&config, (const struct air *)AIR);
    }
    for (uint32_t i = 0; i < FIGURES; i++) {
        if (figures[i].calls != 0u) {
            say(&figures[i]);
        }
    }
    code.calls = (uint32_t)(r < 0 ? -r : 0);
    say(&code);
    /* Semihosting SYS_EXIT, ADP_Stopped_ApplicationExit. */
    __asm__ volatile("movs r0, #0x18\n ldr r1, =0x20026\n bkpt 0xab" ::: "r0", "r1", "memory");
    for (;;) {
    }
}
