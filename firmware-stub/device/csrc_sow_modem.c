/* Compiled by cgo with this package. */
#include "../ports/modem/sow_modem.c"
