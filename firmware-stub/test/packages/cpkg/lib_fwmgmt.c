#include "../../../src/sow_fwmgmt.c"
