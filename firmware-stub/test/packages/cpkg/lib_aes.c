#include "../../../src/sow_aes.c"
