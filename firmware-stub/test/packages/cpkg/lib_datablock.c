#include "../../../src/sow_datablock.c"
