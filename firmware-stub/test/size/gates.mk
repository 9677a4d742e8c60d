# Builds the objects of `make firmware` once more, one by one and with a stack report each, links them to the
# very same images (compared), and judges them. Run by the Makefile beside it, from the root of the repository.

.DEFAULT_GOAL := gates
GO ?= go
QEMU ?= qemu-system-arm
SIZE ?= build/size

include firmware-stub/firmware.mk

setup: # the tools are there, or the first command says which one is not

SIZE_DIR := $(FW_DIR)/test/size
SIZE_APP := $(addprefix $(SIZE)/app/,$(FW_BEACON:.c=.o) $(FW_APP_LIB:.c=.o) $(FW_BOARD:.c=.o))
SIZE_ALONE := $(addprefix $(SIZE)/app/,$(FW_BEACON:.c=.o) $(FW_LIB:.c=.o) $(FW_BOARD:.c=.o))
SIZE_STUB := $(addprefix $(SIZE)/boot/,$(FW_STUB_LIB:.c=.o) $(FW_BOARD:.c=.o) $(FW_DIR)/ports/mps2/boot_main.o)
SIZE_REPORTS := -fstack-usage -fcallgraph-info=su

$(SIZE)/app/%.o: %.c $(FW_HEADERS)
	@mkdir -p $(@D)
	@$(ARM_CC) $(FW_CFLAGS) $(FW_APP_CFLAGS) -DAPP_MINOR=0 $(SIZE_REPORTS) -c $< -o $@

$(SIZE)/boot/%.o: %.c $(FW_HEADERS)
	@mkdir -p $(@D)
	@$(ARM_CC) $(FW_CFLAGS) $(SIZE_REPORTS) -c $< -o $@

# $(call same,linked here,made by `make firmware`): the loadable bytes are the same.
define same
	@$(ARM_OBJCOPY) -O binary $(1) $(1).bin && $(ARM_OBJCOPY) -O binary $(2) $(1).made && cmp $(1).bin $(1).made || \
		{ echo "$(1) is not what \`make firmware\` links" >&2; exit 1; }
endef

$(SIZE)/app.elf: $(SIZE_APP) $(FIRMWARE)/beacon-1.0.0.bin
	@$(ARM_CC) $(FW_CFLAGS) $(SIZE_APP) -T $(FW_DIR)/examples/beacon/beacon.ld $(FW_APP_LDFLAGS) -Wl,-Map=$(SIZE)/app.map -o $@
	$(call same,$@,$(FIRMWARE)/beacon-1.0.0.elf)

# The same application with a library that needs no stub.
$(SIZE)/alone.elf: $(SIZE_ALONE)
	@$(ARM_CC) $(FW_CFLAGS) $(SIZE_ALONE) -T $(FW_DIR)/examples/beacon/beacon.ld $(FW_APP_LDFLAGS) -Wl,-Map=$(SIZE)/alone.map -o $@

$(SIZE)/boot.elf: $(SIZE_STUB) $(FIRMWARE)/boot.elf
	@$(ARM_CC) $(FW_CFLAGS) $(SIZE_STUB) -T $(FW_DIR)/ports/mps2/boot.ld $(FW_LDFLAGS) -Wl,-Map=$(SIZE)/boot.map -o $@
	$(call same,$@,$(FIRMWARE)/boot.elf)

# The application with the RAM budget of another class of patches: app-5.bin, app-8.bin, app-16.bin.
APP_OUT ?= $(SIZE)
BEACON := $(FW_DIR)/examples/beacon/beacon
$(APP_OUT)/app-%.elf: $(SIZE_APP) $(BEACON).c $(FW_DIR)/examples/beacon/beacon.ld
	@$(MAKE) -s -f $(SIZE_DIR)/gates.mk SIZE=$(SIZE) APP_OUT=$(APP_OUT) FW_PATCH_KIB=$* link-app-$*
link-app-%:
	@$(ARM_CC) $(FW_CFLAGS) $(FW_APP_CFLAGS) -DAPP_MINOR=0 $(BEACON).c $(filter-out %/beacon.o,$(SIZE_APP)) \
		-T $(FW_DIR)/examples/beacon/beacon.ld $(FW_APP_LDFLAGS) -o $(APP_OUT)/app-$*.elf
$(APP_OUT)/app-%.bin: $(APP_OUT)/app-%.elf
	@$(ARM_OBJCOPY) -O binary $< $@

# A program for the emulator that says what only the target knows: sizes of structs, results of functions.
SIZE_PROBE := $(SIZE_DIR)/probe/probe.c $(FW_LIB) $(FW_BOARD)
$(SIZE)/probe.txt: $(SIZE_PROBE) $(FW_HEADERS)
	@mkdir -p $(@D)
	@$(ARM_CC) $(FW_CFLAGS) $(SIZE_PROBE) -T $(FW_DIR)/ports/mps2/boot.ld $(FW_LDFLAGS) -o $(SIZE)/probe.elf
	@timeout 60 $(QEMU) -M mps2-an385 -display none -monitor none -serial stdio -semihosting \
		-kernel $(SIZE)/probe.elf > $@.new < /dev/null
	@mv $@.new $@

gates: $(SIZE)/app.elf $(SIZE)/alone.elf $(SIZE)/boot.elf $(SIZE)/probe.txt ## the table
	@$(GO) run ./$(SIZE_DIR) $(SIZE) .

.PHONY: gates setup
