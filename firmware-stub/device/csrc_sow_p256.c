/* Compiled by cgo with this package. */
#include "../src/sow_p256.c"
