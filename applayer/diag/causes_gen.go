// Code generated from causes.tsv by internal/gen; DO NOT EDIT.

package diag

// The steps of the registry.
const (
	StepNone     Step = 0 // no update in progress
	StepSetup    Step = 1 // multicast group, fragmentation session or receive window is being set up
	StepReceive  Step = 2 // fragments are being received
	StepManifest Step = 3 // the signed manifest is being judged
	StepVerify   Step = 4 // the reassembled block is being solved and its digest checked
	StepPatch    Step = 5 // the new image is being written to slot B
	StepReady    Step = 6 // a verified image waits in slot B
	StepInstall  Step = 7 // the boot stub is swapping slot A and slot B
	StepTrial    Step = 8 // the new image runs unconfirmed
	StepRunning  Step = 9 // the image in slot A is confirmed
)

var steps = map[Step]info{
	StepNone:     {"NONE", "no update in progress", "nothing to do"},
	StepSetup:    {"SETUP", "multicast group, fragmentation session or receive window is being set up", "wait for the next uplink of the device"},
	StepReceive:  {"RECEIVE", "fragments are being received", "wait, or send more parity fragments"},
	StepManifest: {"MANIFEST", "the signed manifest is being judged", "read the cause"},
	StepVerify:   {"VERIFY", "the reassembled block is being solved and its digest checked", "wait a few minutes"},
	StepPatch:    {"PATCH", "the new image is being written to slot B", "wait a few minutes"},
	StepReady:    {"READY", "a verified image waits in slot B", "send the reboot command"},
	StepInstall:  {"INSTALL", "the boot stub is swapping slot A and slot B", "wait for the device to boot"},
	StepTrial:    {"TRIAL", "the new image runs unconfirmed", "wait for its confirmation"},
	StepRunning:  {"RUNNING", "the image in slot A is confirmed", "nothing to do"},
}

// The causes of the registry.
const (
	CauseOK               Cause = 0  // no error
	CauseNoRAM            Cause = 1  // the arena is smaller than this session or codec needs
	CauseNoFlash          Cause = 2  // the download area is smaller than this session needs
	CauseFlashIO          Cause = 3  // a flash operation failed and no spare was left
	CauseFlashDecay       Cause = 4  // a received fragment no longer matched its checksum and was treated as lost
	CauseAlgoUnsupported  Cause = 5  // the session asks for a fragmentation algorithm the device lacks
	CauseIndexUnsupported Cause = 6  // the fragmentation index is not supported
	CauseDescriptorWrong  Cause = 7  // the device insists on another descriptor
	CauseSessionReplay    Cause = 8  // SessionCnt was not larger than the last one used
	CauseNoSession        Cause = 9  // no fragmentation session exists under this index
	CauseManifestFormat   Cause = 10 // the block does not start with a manifest of a known format version
	CauseClassMismatch    Cause = 11 // the bundle is for another device class
	CauseHardwareMismatch Cause = 12 // the bundle is for another hardware id
	CauseBaseMismatch     Cause = 13 // the patch was made against another image than the one running
	CauseRollbackBlocked  Cause = 14 // the sequence number is not above the last one installed
	CauseSignatureBad     Cause = 15 // the signature of the manifest does not verify
	CauseKeyUnknown       Cause = 16 // the device has no key of this key id
	CauseExpired          Cause = 17 // the bundle has expired
	CauseImageTooLarge    Cause = 18 // the new image does not fit the slot
	CauseCodecUnsupported Cause = 19 // the payload codec or its profile is unknown to the device
	CauseNoScratch        Cause = 20 // the patch needs more flash scratch than the device has
	CauseDigestBad        Cause = 21 // the payload digest does not match the manifest
	CauseSessionMICBad    Cause = 22 // the TS004 v2 block MIC does not match
	CausePatchCorrupt     Cause = 23 // the patch stream is not valid
	CauseImageDigestBad   Cause = 24 // the image in slot B does not have the digest of the manifest
	CauseImageInvalid     Cause = 25 // the image in slot B is no valid MCUboot image
	CauseNoProgress       Cause = 26 // the device was reset again and again while it verified or patched, and got no further
	CauseSelfTestFailed   Cause = 30 // the new image failed its own self-test and was rolled back
	CauseBootHang         Cause = 31 // the new image did not survive its boot attempts and was rolled back
	CauseNotConfirmed     Cause = 32 // the new image was not confirmed before its deadline and was rolled back
	CauseNoServices       Cause = 33 // the boot stub lacks the services that the application was linked for
	CauseDeferredUser     Cause = 40 // the user or the application put the update off
	CauseDeferredBattery  Cause = 41 // the battery is too low for the update
	CauseRefused          Cause = 42 // the user or the application refused the update
	CauseNoUplink         Cause = 64 // the device sent nothing while the engine waited for it
	CauseSetupTimeout     Cause = 65 // the device sends uplinks but does not answer the set-up
	CauseClockOff         Cause = 66 // the clock of the device could not be set
	CauseSessionMissed    Cause = 67 // the device answered that the receive window had already begun
	CauseKeyMismatch      Cause = 68 // the device received no fragment at all although its group was set up
	CauseLossExceeded     Cause = 69 // the device still misses fragments and is not worth more airtime
	CauseGatewayDutyCycle Cause = 70 // a gateway refused fragments for its duty cycle
	CauseGatewayTooLate   Cause = 71 // a gateway received fragments after their time
	CauseGatewayCollision Cause = 72 // a gateway had to send something else at the same time
	CauseNotRebooted      Cause = 73 // the device holds the image but did not reboot
	CauseSilentAfterBoot  Cause = 74 // the device has not been heard since it was told to reboot
	CauseUnproven         Cause = 75 // the block is complete but nothing proves what the device runs
	CauseHealthRegressed  Cause = 76 // the device runs the new version but resets or sends less than before
	CauseRootKeyMissing   Cause = 77 // no root key is known for the device
	CauseReverted         Cause = 78 // the device went back to the old version and gave no cause
	CausePackagesMissing  Cause = 79 // the device does not answer PackageVersionReq
	CauseWindowRefused    Cause = 80 // the device refuses data rate or frequency of the receive window
	CauseOtherVersion     Cause = 81 // the device speaks another version of TS004 than its group
	CauseNotConfirmedYet  Cause = 82 // the device runs the new version but has not confirmed it
)

var causes = map[Cause]info{
	CauseOK:               {"OK", "no error", "nothing to do"},
	CauseNoRAM:            {"NO_RAM", "the arena is smaller than this session or codec needs", "choose a smaller device profile or fragment size"},
	CauseNoFlash:          {"NO_FLASH", "the download area is smaller than this session needs", "use a delta patch, or a larger fragment size"},
	CauseFlashIO:          {"FLASH_IO", "a flash operation failed and no spare was left", "check the flash port with sow_port_selftest"},
	CauseFlashDecay:       {"FLASH_DECAY", "a received fragment no longer matched its checksum and was treated as lost", "send more parity fragments"},
	CauseAlgoUnsupported:  {"ALGO_UNSUPPORTED", "the session asks for a fragmentation algorithm the device lacks", "use algorithm 0"},
	CauseIndexUnsupported: {"INDEX_UNSUPPORTED", "the fragmentation index is not supported", "use index 0"},
	CauseDescriptorWrong:  {"DESCRIPTOR_WRONG", "the device insists on another descriptor", "set the descriptor in the campaign file"},
	CauseSessionReplay:    {"SESSION_REPLAY", "SessionCnt was not larger than the last one used", "raise SessionCnt and set the session up again"},
	CauseNoSession:        {"NO_SESSION", "no fragmentation session exists under this index", "set the session up again"},
	CauseManifestFormat:   {"MANIFEST_FORMAT", "the block does not start with a manifest of a known format version", "sign the bundle with a sower of the same major version"},
	CauseClassMismatch:    {"CLASS_MISMATCH", "the bundle is for another device class", "correct the target list of the campaign"},
	CauseHardwareMismatch: {"HARDWARE_MISMATCH", "the bundle is for another hardware id", "correct the target list of the campaign"},
	CauseBaseMismatch:     {"BASE_MISMATCH", "the patch was made against another image than the one running", "make a patch for this base, or send the full image"},
	CauseRollbackBlocked:  {"ROLLBACK_BLOCKED", "the sequence number is not above the last one installed", "sign the bundle again with a higher sequence number"},
	CauseSignatureBad:     {"SIGNATURE_BAD", "the signature of the manifest does not verify", "sign with the key whose public half the device holds"},
	CauseKeyUnknown:       {"KEY_UNKNOWN", "the device has no key of this key id", "sign with a key in one of the trust slots of the device"},
	CauseExpired:          {"EXPIRED", "the bundle has expired", "sign the bundle again"},
	CauseImageTooLarge:    {"IMAGE_TOO_LARGE", "the new image does not fit the slot", "build a smaller image"},
	CauseCodecUnsupported: {"CODEC_UNSUPPORTED", "the payload codec or its profile is unknown to the device", "choose another codec or profile"},
	CauseNoScratch:        {"NO_SCRATCH", "the patch needs more flash scratch than the device has", "make the patch with --map ram or fewer segments"},
	CauseDigestBad:        {"DIGEST_BAD", "the payload digest does not match the manifest", "check parity matrix and fragments, then send again"},
	CauseSessionMICBad:    {"SESSION_MIC_BAD", "the TS004 v2 block MIC does not match", "check the root keys of the device"},
	CausePatchCorrupt:     {"PATCH_CORRUPT", "the patch stream is not valid", "make the patch again"},
	CauseImageDigestBad:   {"IMAGE_DIGEST_BAD", "the image in slot B does not have the digest of the manifest", "send the reboot command again after the device has patched again"},
	CauseImageInvalid:     {"IMAGE_INVALID", "the image in slot B is no valid MCUboot image", "build the image with an MCUboot header and trailer"},
	CauseNoProgress:       {"NO_PROGRESS", "the device was reset again and again while it verified or patched, and got no further", "make the patch with a smaller profile, or check watchdog and supply of the device"},
	CauseSelfTestFailed:   {"SELF_TEST_FAILED", "the new image failed its own self-test and was rolled back", "read the console of a device on the bench"},
	CauseBootHang:         {"BOOT_HANG", "the new image did not survive its boot attempts and was rolled back", "read the console of a device on the bench"},
	CauseNotConfirmed:     {"NOT_CONFIRMED", "the new image was not confirmed before its deadline and was rolled back", "check that the new image joins the network"},
	CauseNoServices:       {"NO_SERVICES", "the boot stub lacks the services that the application was linked for", "link the application with its own crypto, and give devices with that stub another hardware id"},
	CauseDeferredUser:     {"DEFERRED_USER", "the user or the application put the update off", "wait, or ask the user"},
	CauseDeferredBattery:  {"DEFERRED_BATTERY", "the battery is too low for the update", "wait, or change the battery"},
	CauseRefused:          {"REFUSED", "the user or the application refused the update", "take the device out of the campaign"},
	CauseNoUplink:         {"NO_UPLINK", "the device sent nothing while the engine waited for it", "check that the device is in range and powered"},
	CauseSetupTimeout:     {"SETUP_TIMEOUT", "the device sends uplinks but does not answer the set-up", "check the package ports and versions in the device profile"},
	CauseClockOff:         {"CLOCK_OFF", "the clock of the device could not be set", "check that the device sends AppTimeReq"},
	CauseSessionMissed:    {"SESSION_MISSED", "the device answered that the receive window had already begun", "start the session later"},
	CauseKeyMismatch:      {"KEY_MISMATCH", "the device received no fragment at all although its group was set up", "check GenAppKey of the device on the network server"},
	CauseLossExceeded:     {"LOSS_EXCEEDED", "the device still misses fragments and is not worth more airtime", "send in another group at a lower data rate, or by unicast"},
	CauseGatewayDutyCycle: {"GATEWAY_DUTY_CYCLE", "a gateway refused fragments for its duty cycle", "send more slowly, or through more gateways"},
	CauseGatewayTooLate:   {"GATEWAY_TOO_LATE", "a gateway received fragments after their time", "check the backhaul of the gateway"},
	CauseGatewayCollision: {"GATEWAY_COLLISION", "a gateway had to send something else at the same time", "keep other downlinks out of the session"},
	CauseNotRebooted:      {"NOT_REBOOTED", "the device holds the image but did not reboot", "send the reboot command again"},
	CauseSilentAfterBoot:  {"SILENT_AFTER_BOOT", "the device has not been heard since it was told to reboot", "go and see; stop the campaign"},
	CauseUnproven:         {"UNPROVEN", "the block is complete but nothing proves what the device runs", "choose a proof in the campaign file"},
	CauseHealthRegressed:  {"HEALTH_REGRESSED", "the device runs the new version but resets or sends less than before", "stop the campaign"},
	CauseRootKeyMissing:   {"ROOT_KEY_MISSING", "no root key is known for the device", "provision GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1)"},
	CauseReverted:         {"REVERTED", "the device went back to the old version and gave no cause", "read the console of a device on the bench"},
	CausePackagesMissing:  {"PACKAGES_MISSING", "the device does not answer PackageVersionReq", "use a device with TS003, TS004, TS005 and TS006"},
	CauseWindowRefused:    {"WINDOW_REFUSED", "the device refuses data rate or frequency of the receive window", "choose a data rate and frequency that the device profile allows"},
	CauseOtherVersion:     {"OTHER_VERSION", "the device speaks another version of TS004 than its group", "put it into a campaign of its own"},
	CauseNotConfirmedYet:  {"NOT_CONFIRMED_YET", "the device runs the new version but has not confirmed it", "wait for the device, or look at its confirmation policy"},
}
