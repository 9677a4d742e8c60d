/* The vector table that starts the driver on an emulated Cortex-M, where it reads and writes
 * the host's stdin and stdout by semihosting.
 *
 * SPDX-License-Identifier: Apache-2.0 */

extern void _start(void);

static void (*const vectors[])(void)
    __attribute__((section(".vectors"), used)) = {(void (*)(void))0x20400000, _start};
