/* The porting checklist on Zephyr: reset the board when it asks for it, or let it do so itself.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>
#include <zephyr/sys/reboot.h>

#include "sow_selftest.h"
#include "zephyr_sower.h"

static uint32_t microseconds(void *user)
{
    ARG_UNUSED(user);
    return (uint32_t)k_ticks_to_us_floor64((uint64_t)k_uptime_ticks());
}

int main(void)
{
    static struct sow_port port;
    static struct sow_selftest_report report = {.tick = microseconds};
    int r;

    zephyr_sower_port(&port);
    r = sow_port_selftest(&port, &zephyr_sower_map, &report);
    if (r == SOW_MORE) {
        printk("selftest: first half holds, %u pages; longest erase of one: %u us\n", report.pages, report.erase_page);
        sys_reboot(SYS_REBOOT_COLD);
    }
    if (r == SOW_OK) {
        printk("selftest: ok\n");
    } else {
        printk("selftest: broken at 0x%x: %s\n", report.addr, sow_selftest_text(report.clause));
    }
    return 0;
}
