// Decodes one patch on an emulated mps2-an386 and prints the instructions it took. The images,
// the stream and struct sow_patch_params come from a generated assembly file. QEMU runs with
// -icount shift=0: an instruction is a nanosecond, a tick of the 25 MHz timer is 40 of them.
#include "sow_patch.h"

#include <stddef.h>

extern const uint8_t base_image[], new_image[], stream[];
extern const uint32_t stream_size;
extern const struct sow_patch_params params;
extern uint32_t stack_top[];

static uint32_t work[20000 / 4];
static uint32_t out_words[0x80000 / 4], scratch_words[0x40000 / 4]; // aligned, as flash is

#define out ((uint8_t *)out_words)
#define scratch ((uint8_t *)scratch_words)

#define TIMER ((volatile uint32_t *)0x40000000)

void *memcpy(void *restrict d, const void *restrict s, size_t n);
void *memset(void *d, int c, size_t n);
void *memmove(void *d, const void *s, size_t n);

void *memcpy(void *restrict d, const void *restrict s, size_t n)
{
    uint8_t *p = d;
    const uint8_t *q = s;

    if ((((uintptr_t)p ^ (uintptr_t)q) & 3) == 0) {
        for (; n > 0 && ((uintptr_t)p & 3) != 0; n--)
            *p++ = *q++;
        for (; n >= 16; n -= 16, p += 16, q += 16) {
            const uint32_t *a = (const void *)q;
            uint32_t *b = (void *)p;

            b[0] = a[0];
            b[1] = a[1];
            b[2] = a[2];
            b[3] = a[3];
        }
    }
    for (; n > 0; n--)
        *p++ = *q++;
    return d;
}

void *memset(void *d, int c, size_t n)
{
    for (uint8_t *p = d; n > 0; n--)
        *p++ = (uint8_t)c;
    return d;
}

void *memmove(void *d, const void *s, size_t n)
{
    uint8_t *p = d;
    const uint8_t *q = s;

    if (p < q)
        return memcpy(d, s, n);
    while (n-- > 0)
        p[n] = q[n];
    return d;
}

static int copy(void *buf, const uint8_t *from, uint32_t n)
{
    memcpy(buf, from, n);
    return 0;
}

static int read_base(void *u, uint32_t off, void *b, uint32_t n) { (void)u; return copy(b, base_image + off, n); }
static int read_stream(void *u, uint32_t off, void *b, uint32_t n) { (void)u; return copy(b, stream + off, n); }
static int read_new(void *u, uint32_t off, void *b, uint32_t n) { (void)u; return copy(b, out + off, n); }
static int s_erase(void *u, uint32_t off, uint32_t n) { (void)u; (void)off; (void)n; return 0; }
static int s_prog(void *u, uint32_t off, const void *b, uint32_t n) { (void)u; return copy(scratch + off, b, n); }
static int s_read(void *u, uint32_t off, void *b, uint32_t n) { (void)u; return copy(b, scratch + off, n); }

static uint32_t call(uint32_t op, const void *arg)
{
    register uint32_t r0 __asm__("r0") = op;
    register const void *r1 __asm__("r1") = arg;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(uint32_t v, const char *end)
{
    char b[12];
    int i = 11;

    b[i] = 0;
    do
        b[--i] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    call(4, b + i);
    call(4, end);
}

void start(void);
void start(void)
{
    const struct sow_patch_io io = {NULL, read_base, read_stream, read_new, s_erase, s_prog, s_read};
    struct sow_patch p;
    uint32_t t, k, bad = 0;
    int r;

    TIMER[2] = 0xffffffff; // RELOAD
    TIMER[1] = 0xffffffff; // VALUE
    TIMER[0] = 1;
    t = TIMER[1];
    r = sow_patch_init(&p, &params, &io, stream_size, work, sizeof work);
    for (k = 0; r == 0 && k < params.new_size; k += 256) {
        uint32_t n = params.new_size - k;

        r = sow_patch_read(&p, out + k, n < 256 ? n : 256);
    }
    t -= TIMER[1];
    for (k = 0; k < params.new_size; k++)
        bad += out[k] != new_image[k];
    print((uint32_t)-r, " ");
    print(bad, " ");
    print(t, "\n");
    call(0x18, (const void *)0x20026);
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {stack_top, (const void *)start};
