# The project's own Cortex-M firmware: boot stub and example application, for ARMv6-M, run on mps2-an385.
#
#   $(FIRMWARE)/boot.elf                  boot stub at address 0, with its services
#   $(FIRMWARE)/beacon-1.0.0.elf .bin     application over these services, linked at slot A
#   $(FIRMWARE)/beacon-1.1.0.elf .bin     the next release
#   $(FIRMWARE)/beacon-1.1.0-selftest.bin the next release with a self-test that fails
#   $(FIRMWARE)/beacon-1.1.0-hang.bin     the next release with an endless loop behind its banner

FIRMWARE ?= build/firmware
ARM_CC ?= arm-none-eabi-gcc
ARM_OBJCOPY ?= arm-none-eabi-objcopy

FW_DIR := firmware-stub
FW_CFLAGS := -std=c99 -Os -g -mcpu=cortex-m0plus -mthumb -ffreestanding -ffunction-sections -fdata-sections \
	-fno-common -Wall -Wextra -Wconversion -Werror -ffile-prefix-map=$(CURDIR)=. \
	-I$(FW_DIR)/include -I$(FW_DIR)/src -I$(FW_DIR)/ports/mps2 -I$(FW_DIR)/ports/modem -I$(FW_DIR)/examples/beacon
FW_LDFLAGS := -nostartfiles --specs=nano.specs -Wl,--gc-sections -Wl,--fatal-warnings

# RAM of the library by RAM class of its patches (KiB): context, arena and stack, enforced by beacon.ld.
FW_RAM_5 := 7168
FW_RAM_8 := 9728
FW_RAM_16 := 17920
FW_PATCH_KIB ?= 16
FW_APP_CFLAGS := -DPATCH_KIB=$(FW_PATCH_KIB)u
FW_APP_LDFLAGS := $(FW_LDFLAGS) -Wl,--defsym=library_ram=$(FW_RAM_$(FW_PATCH_KIB))

# The stub offers the sources of FW_SERVED to the application (sow_services.h). FW_LIB is the library that needs no stub.
FW_LIB := $(wildcard $(FW_DIR)/src/*.c $(FW_DIR)/boot/*.c $(FW_DIR)/ports/modem/*.c)
FW_SERVED := $(patsubst %,$(FW_DIR)/src/sow_%.c,aes sha256 p256 flash log)
FW_APP_LIB := $(filter-out $(FW_SERVED),$(FW_LIB)) $(FW_DIR)/services/sow_services_app.c
FW_STUB_LIB := $(FW_LIB) $(FW_DIR)/services/sow_services_stub.c
FW_BOARD := $(FW_DIR)/ports/mps2/mps2.c $(FW_DIR)/ports/mps2/startup.c
FW_BEACON := $(wildcard $(FW_DIR)/examples/beacon/*.c)
FW_HEADERS := $(wildcard $(FW_DIR)/include/*.h $(FW_DIR)/src/*.h $(FW_DIR)/boot/*.h $(FW_DIR)/services/*.h $(FW_DIR)/ports/*/*.h $(FW_DIR)/examples/beacon/*.h)

FW_IMAGES := $(addprefix $(FIRMWARE)/beacon-,1.0.0.bin 1.1.0.bin 1.1.0-selftest.bin 1.1.0-hang.bin)

firmware: setup $(FIRMWARE)/boot.elf $(FW_IMAGES) ## the Cortex-M firmware

$(FIRMWARE):
	@mkdir -p $@

$(FIRMWARE)/boot.elf: $(FW_STUB_LIB) $(FW_BOARD) $(FW_DIR)/ports/mps2/boot_main.c $(FW_DIR)/ports/mps2/boot.ld $(FW_HEADERS) $(FW_DIR)/firmware.mk | $(FIRMWARE)
	@echo "firmware: boot stub"
	@$(ARM_CC) $(FW_CFLAGS) $(FW_STUB_LIB) $(FW_BOARD) $(FW_DIR)/ports/mps2/boot_main.c -T $(FW_DIR)/ports/mps2/boot.ld $(FW_LDFLAGS) -o $@

$(FIRMWARE)/beacon-1.0.0.elf: FW_VARIANT := -DAPP_MINOR=0
$(FIRMWARE)/beacon-1.1.0.elf: FW_VARIANT := -DAPP_MINOR=1
$(FIRMWARE)/beacon-1.1.0-selftest.elf: FW_VARIANT := -DAPP_MINOR=1 -DAPP_VERDICT=1
$(FIRMWARE)/beacon-1.1.0-hang.elf: FW_VARIANT := -DAPP_MINOR=1 -DAPP_VERDICT=2

$(FIRMWARE)/beacon-%.elf: $(FW_APP_LIB) $(FW_BOARD) $(FW_BEACON) $(FW_DIR)/examples/beacon/beacon.ld $(FW_HEADERS) $(FW_DIR)/firmware.mk | $(FIRMWARE)
	@echo "firmware: beacon $*"
	@$(ARM_CC) $(FW_CFLAGS) $(FW_APP_CFLAGS) $(FW_VARIANT) $(FW_BEACON) $(FW_APP_LIB) $(FW_BOARD) -T $(FW_DIR)/examples/beacon/beacon.ld $(FW_APP_LDFLAGS) -o $@

$(FIRMWARE)/beacon-%.bin: $(FIRMWARE)/beacon-%.elf
	@$(ARM_OBJCOPY) -O binary $< $@

.PRECIOUS: $(FIRMWARE)/beacon-%.elf
.PHONY: firmware
