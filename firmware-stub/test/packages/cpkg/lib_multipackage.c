#include "../../../src/sow_multipackage.c"
