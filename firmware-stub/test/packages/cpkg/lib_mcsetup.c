#include "../../../src/sow_mcsetup.c"
