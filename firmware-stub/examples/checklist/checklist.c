/* The porting checklist as a firmware: link it where the application goes, reset the board, read the console.
 *
 * It says "selftest: reset" when its first half holds, "selftest: ok" after the reset that follows, or which
 * clause is broken. `sower bench selftest` reads the same lines and does the resets. Replace the mps2 calls by
 * your board's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mps2.h"
#include "sow_modem.h"
#include "sow_selftest.h"

static uint32_t random_bits(void *user)
{
    static uint32_t state = 1;

    (void)user;
    return state = state * 1664525u + 1013904223u;
}

static void frame(uint8_t type, const void *payload, uint32_t n)
{
    const uint8_t head[4] = {SOW_MODEM_SYNC, type, (uint8_t)n, (uint8_t)(n >> 8)};
    uint16_t crc = sow_modem_crc(sow_modem_crc(0xffff, head + 1, 3), payload, n);
    const uint8_t tail[2] = {(uint8_t)crc, (uint8_t)(crc >> 8)};

    mps2_uart_write(head, sizeof head);
    mps2_uart_write(payload, n);
    mps2_uart_write(tail, sizeof tail);
}

static void say(const char *text)
{
    char line[160] = "selftest: ";

    strncat(line, text, sizeof line - strlen(line) - 1u);
    frame(SOW_MODEM_CONSOLE, line, (uint32_t)strlen(line));
}

/* Every frame ends in IDLE_UNTIL, but RESET. */
static void until_reset(void)
{
    static const uint8_t never[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t type;

    mps2_watchdog_stop();
    do {
        uint32_t n;

        frame(SOW_MODEM_IDLE_UNTIL, never, sizeof never);
        while (mps2_uart_read() != SOW_MODEM_SYNC) {
        }
        type = mps2_uart_read();
        n = mps2_uart_read();
        n |= (uint32_t)mps2_uart_read() << 8;
        for (n += 2u; n != 0; n--) /* payload and CRC */
            (void)mps2_uart_read();
    } while (type != SOW_MODEM_RESET_REQ);
    frame(SOW_MODEM_RESET, "", 1u);
    mps2_reset();
}

int main(void)
{
    static struct sow_port port;
    struct sow_selftest_report report;
    int r;

    mps2_init();
    mps2_watchdog_kick();
    mps2_port(&port);
    port.random = random_bits;
    memset(&report, 0, sizeof report);
    r = sow_port_selftest(&port, &mps2_map, &report);
    say(r == SOW_OK ? "ok" : r == SOW_MORE ? "reset" : sow_selftest_text(report.clause));
    until_reset();
    return 0;
}
