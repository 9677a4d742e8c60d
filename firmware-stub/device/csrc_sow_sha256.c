/* Compiled by cgo with this package. */
#include "../src/sow_sha256.c"
