/* Says on the UART what only the target knows, one "name value" a line, then ends the emulator.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "mps2.h"
#include "sow.h"
#include "sow_modem.h"
#include "sow_patch.h"

static void say(const char *name, uint32_t value)
{
    char line[64];
    uint32_t n = (uint32_t)strlen(name), unit = 1000000000u;

    memcpy(line, name, n);
    line[n++] = ' ';
    while (unit > 1u && value < unit)
        unit /= 10u;
    for (; unit != 0u; unit /= 10u)
        line[n++] = (char)('0' + value / unit % 10u);
    line[n++] = '\n';
    mps2_uart_write((const uint8_t *)line, n);
}

int main(void)
{
    mps2_init();
    say("struct_sow", sizeof(struct sow));
    say("struct_sow_core", sizeof(struct sow_core));
    say("struct_sow_port", sizeof(struct sow_port));
    say("struct_sow_map", sizeof(struct sow_map));
    say("struct_sow_identity", sizeof(struct sow_identity));
    say("struct_sow_modem", sizeof(struct sow_modem));
    say("struct_sow_patch", sizeof(struct sow_patch));
    say("arena_1000_48", sow_core_arena_size(1000, 48, 0));
    say("arena_300_48", sow_core_arena_size(300, 48, 0));
    say("arena_1000_232", sow_core_arena_size(1000, 232, 0));
    say("arena_4000_232", sow_core_arena_size(4000, 232, 0));
    say("arena_patch_5", sow_core_arena_size(300, 48, 5u * 1024u));
    say("arena_patch_8", sow_core_arena_size(300, 48, 8u * 1024u));
    say("arena_patch_16", sow_core_arena_size(300, 48, 16u * 1024u));
    /* Semihosting SYS_EXIT, ADP_Stopped_ApplicationExit. */
    __asm__ volatile("movs r0, #0x18\n ldr r1, =0x20026\n bkpt 0xab" ::: "r0", "r1", "memory");
    for (;;) {
    }
}
