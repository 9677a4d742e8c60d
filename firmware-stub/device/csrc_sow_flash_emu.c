/* Compiled by cgo with this package. */
#include "../ports/posix/sow_flash_emu.c"
