# The instruction counter, made of the sources and flags of `make firmware`. Run from the root of the repository.
.DEFAULT_GOAL := bench
include firmware-stub/firmware.mk
QEMU_BENCH := $(FW_DIR)/test/qemu/bench

setup:

bench: $(BENCH)/bench.elf
$(BENCH)/bench.elf: $(FW_LIB) $(FW_BOARD) $(QEMU_BENCH)/bench.c $(QEMU_BENCH)/bench.ld $(FW_HEADERS) $(FW_DIR)/firmware.mk
	@mkdir -p $(@D)
	@$(ARM_CC) $(FW_CFLAGS) $(QEMU_BENCH)/bench.c $(FW_LIB) $(FW_BOARD) -T $(QEMU_BENCH)/bench.ld $(FW_LDFLAGS) -o $@

.PHONY: bench setup
