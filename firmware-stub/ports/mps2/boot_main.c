/* The boot stub of the board: decide, say what was decided, jump.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mps2.h"
#include "sow_boot.h"
#include "sow_modem.h"

static struct {
    struct sow_port port;
    struct sow_identity identity;
} stub;

/* A CONSOLE frame of the modem protocol: all that the stub ever says. */
static void say(const char *text)
{
    uint32_t n = (uint32_t)strlen(text);
    const uint8_t head[4] = {SOW_MODEM_SYNC, SOW_MODEM_CONSOLE, (uint8_t)n, 0};
    uint16_t crc = sow_modem_crc(sow_modem_crc(0xffff, head + 1, sizeof head - 1u), (const uint8_t *)text, n);
    const uint8_t tail[2] = {(uint8_t)crc, (uint8_t)(crc >> 8)};

    mps2_uart_write(head, sizeof head);
    mps2_uart_write((const uint8_t *)text, n);
    mps2_uart_write(tail, sizeof tail);
}

int main(void)
{
    static const char *const words[] = {
        [SOW_BOOT_NONE] = "stub: slot A verified",
        [SOW_BOOT_PENDING] = "stub: a swap is pending",
        [SOW_BOOT_TRIAL] = "stub: slot A holds a new image, on trial",
        [SOW_BOOT_CONFIRMED] = "stub: slot A verified, confirmed",
        [SOW_BOOT_REVERTED] = "stub: the new image was rolled back, slot A holds the old one",
        [SOW_BOOT_REFUSED] = "stub: slot B does not verify and was not booted",
    };
    struct sow_config config = {&stub.port, &mps2_map, &stub.identity};
    struct sow_boot_status status;
    uint32_t entry, seed;

    mps2_init();
    mps2_watchdog_kick();
    mps2_port(&stub.port);
    if (mps2_factory(&stub.identity, &seed) == 0 && sow_boot(&config, &entry) == SOW_OK) {
        if (sow_boot_read(&config, &status) == SOW_OK && status.state < sizeof words / sizeof *words) {
            say(words[status.state]);
        }
        mps2_watchdog_kick();
        mps2_jump(entry);
    }
    say("stub: no bootable image");
    mps2_watchdog_stop();
    for (;;) {
        (void)mps2_uart_read();
    }
}
