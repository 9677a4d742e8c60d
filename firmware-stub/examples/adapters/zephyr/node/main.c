/* A class A node on Zephyr that joins, says that it lives, and leaves firmware updates to the library.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <zephyr/drivers/watchdog.h>
#include <zephyr/kernel.h>
#include <zephyr/lorawan/lorawan.h>

#include "zephyr_sower.h"

#define PATCH_BYTES 9216u /* as in LAYOUT.toml: for patches made with --ram 8192 */
#define WATCHDOG_SECONDS 20u
#define REPORT_SECONDS 1800u

static const struct device *const watchdog = DEVICE_DT_GET(DT_ALIAS(watchdog0));
static uint8_t arena[PATCH_BYTES] SOW_ALIGNED;
static struct sow s;
static struct sow_port port;

/* Written at manufacture in a real device. */
static struct {
    uint8_t dev_eui[8], join_eui[8], app_key[16];
    struct sow_identity update;
} identity = {.update = {.class_id = 0x1001, .hardware_id = 3, .hw_version = 1, .keys = {{.id = 1}}}};

static void feed(void *user)
{
    ARG_UNUSED(user);
    (void)wdt_feed(watchdog, 0);
}

static void start_watchdog(void)
{
    const struct wdt_timeout_cfg timeout = {
        .window = {.max = WATCHDOG_SECONDS * MSEC_PER_SEC},
        .flags = WDT_FLAG_RESET_SOC,
    };

    if (wdt_install_timeout(watchdog, &timeout) < 0 || wdt_setup(watchdog, 0) < 0) {
        k_panic();
    }
}

static bool join(void)
{
    struct lorawan_join_config config = {
        .mode = LORAWAN_ACT_OTAA,
        .dev_eui = identity.dev_eui,
        .otaa = {.join_eui = identity.join_eui, .app_key = identity.app_key, .nwk_key = identity.app_key},
    };

    return lorawan_join(&config) == 0;
}

int main(void)
{
    static const struct sow_options options = {.package_version = 2, .confirm = SOW_CONFIRM_JOINED};
    const struct sow_config config = {&port, &zephyr_sower_map, &identity.update};
    uint8_t alive[1] = {1};
    uint32_t report;

    zephyr_sower_port(&port);
    zephyr_sower_lorawan(&port);
    port.idle = feed;
    start_watchdog();
    (void)sow_open(&s, &config, &options, arena, sizeof(arena), zephyr_sower_now());
    sow_self_test(&s, zephyr_sower_now(), lorawan_start() == 0 ? SOW_CAUSE_OK : SOW_CAUSE_SELF_TEST_FAILED);
    while (!join()) {
        feed(NULL);
        zephyr_sower_turn(&s, WATCHDOG_SECONDS / 2u);
    }
    sow_joined(&s, zephyr_sower_now());
    for (report = zephyr_sower_now();;) {
        uint32_t now = zephyr_sower_now();

        feed(NULL);
        zephyr_sower_turn(&s, WATCHDOG_SECONDS / 2u);
        /* An uplink inside a receive window would cost a fragment. */
        if ((int32_t)(now - report) >= 0 && sow_quiet_until(&s, now) == now) {
            report = now + REPORT_SECONDS;
            (void)lorawan_send(2, alive, sizeof(alive), LORAWAN_MSG_UNCONFIRMED);
        }
    }
}
