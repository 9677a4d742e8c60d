/* Compiled by cgo with this package. */
#include "../boot/sow_boot.c"
