#include "../../../src/sow_api.c"
