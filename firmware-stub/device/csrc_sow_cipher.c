/* Compiled by cgo with this package. */
#include "../src/sow_cipher.c"
