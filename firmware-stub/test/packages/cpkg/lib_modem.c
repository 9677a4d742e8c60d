#include "../../../ports/modem/sow_modem.c"
