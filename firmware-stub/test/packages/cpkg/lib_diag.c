#include "../../../src/sow_diag.c"
