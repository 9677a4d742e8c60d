/* The board support that docs/integrate.md takes for granted, on the emulated mps2-an385. The page's program is
 * compiled as doc_main. The radio never receives anything: the first wait ends the run. */
#include "hal.h"

#include <string.h>

#include "mps2.h"

int doc_main(void);

static uint32_t seconds = 1000;

static void stop(void)
{
    /* Semihosting SYS_EXIT, ADP_Stopped_ApplicationExit. */
    __asm__ volatile("movs r0, #0x18\n ldr r1, =0x20026\n bkpt 0xab" ::: "r0", "r1", "memory");
    for (;;) {
    }
}

int main(void)
{
    mps2_init();
    (void)doc_main();
    stop();
    return 0;
}

int hal_flash_write8(uint32_t addr, const uint32_t word[2])
{
    volatile uint32_t *to = (volatile uint32_t *)addr;

    to[0] = word[0];
    to[1] = word[1];
    return 0;
}

int hal_flash_erase_page(uint32_t addr)
{
    memset((void *)addr, 0xff, 2048);
    return 0;
}

int hal_flash_ecc_error(void) { return 0; }

uint32_t hal_random(void)
{
    static uint32_t state = 1;

    return state = state * 1664525u + 1013904223u;
}

uint32_t hal_seconds(void) { return seconds; }

void hal_watchdog(void)
{
    static uint32_t kicks;

    if (++kicks > 1000000u) /* it only waits */
        stop();
}

void hal_reset(void) { mps2_reset(); }

void hal_print(const char *text, int number)
{
    uint32_t n = number < 0 ? (uint32_t)-number : (uint32_t)number, unit = 1000000000u;
    char digit;

    mps2_uart_write((const uint8_t *)text, (uint32_t)strlen(text));
    mps2_uart_write((const uint8_t *)(number < 0 ? " -" : " "), number < 0 ? 2u : 1u);
    while (unit > 1u && n < unit)
        unit /= 10u;
    for (; unit != 0u; unit /= 10u) {
        digit = (char)('0' + n / unit % 10u);
        mps2_uart_write((const uint8_t *)&digit, 1u);
    }
    mps2_uart_write((const uint8_t *)"\n", 1u);
}

void hal_jump(uint32_t vectors)
{
    hal_print("jump", (int)vectors);
    mps2_jump(vectors);
}

int hal_radio_wait(uint32_t until, uint8_t *port, uint8_t *group, uint8_t *data, int size)
{
    static int turns;

    (void)port;
    (void)group;
    (void)data;
    (void)size;
    if (turns++ == 3) {
        hal_print("waited for a downlink until", (int)until);
        stop();
    }
    seconds += 60;
    return -1;
}

void hal_radio_send(uint8_t port, const uint8_t *data, int size)
{
    (void)data;
    (void)size;
    hal_print("uplink on port", port);
}

int hal_radio_joined(void) { return 1; }

int hal_sensor_works(void) { return 1; }
