#include "../../../src/sow_clocksync.c"
