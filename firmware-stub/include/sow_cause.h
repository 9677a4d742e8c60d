/* Generated from applayer/diag/causes.tsv by `go generate ./applayer/diag`; do not edit.
 * Step and cause codes that a device reports. Codes are never renumbered. */
#ifndef SOW_CAUSE_H
#define SOW_CAUSE_H

enum sow_step {
    SOW_STEP_NONE = 0, /* no update in progress */
    SOW_STEP_SETUP = 1, /* multicast group, fragmentation session or receive window is being set up */
    SOW_STEP_RECEIVE = 2, /* fragments are being received */
    SOW_STEP_MANIFEST = 3, /* the signed manifest is being judged */
    SOW_STEP_VERIFY = 4, /* the reassembled block is being solved and its digest checked */
    SOW_STEP_PATCH = 5, /* the new image is being written to slot B */
    SOW_STEP_READY = 6, /* a verified image waits in slot B */
    SOW_STEP_INSTALL = 7, /* the boot stub is swapping slot A and slot B */
    SOW_STEP_TRIAL = 8, /* the new image runs unconfirmed */
    SOW_STEP_RUNNING = 9, /* the image in slot A is confirmed */
    SOW_STEP_LAST_ = 63
};

enum sow_cause {
    SOW_CAUSE_OK = 0, /* no error */
    SOW_CAUSE_NO_RAM = 1, /* the arena is smaller than this session or codec needs */
    SOW_CAUSE_NO_FLASH = 2, /* the download area is smaller than this session needs */
    SOW_CAUSE_FLASH_IO = 3, /* a flash operation failed and no spare was left */
    SOW_CAUSE_FLASH_DECAY = 4, /* a received fragment no longer matched its checksum and was treated as lost */
    SOW_CAUSE_ALGO_UNSUPPORTED = 5, /* the session asks for a fragmentation algorithm the device lacks */
    SOW_CAUSE_INDEX_UNSUPPORTED = 6, /* the fragmentation index is not supported */
    SOW_CAUSE_DESCRIPTOR_WRONG = 7, /* the device insists on another descriptor */
    SOW_CAUSE_SESSION_REPLAY = 8, /* SessionCnt was not larger than the last one used */
    SOW_CAUSE_NO_SESSION = 9, /* no fragmentation session exists under this index */
    SOW_CAUSE_MANIFEST_FORMAT = 10, /* the block does not start with a manifest of a known format version */
    SOW_CAUSE_CLASS_MISMATCH = 11, /* the bundle is for another device class */
    SOW_CAUSE_HARDWARE_MISMATCH = 12, /* the bundle is for another hardware id */
    SOW_CAUSE_BASE_MISMATCH = 13, /* the patch was made against another image than the one running */
    SOW_CAUSE_ROLLBACK_BLOCKED = 14, /* the sequence number is not above the last one installed */
    SOW_CAUSE_SIGNATURE_BAD = 15, /* the signature of the manifest does not verify */
    SOW_CAUSE_KEY_UNKNOWN = 16, /* the device has no key of this key id */
    SOW_CAUSE_EXPIRED = 17, /* the bundle has expired */
    SOW_CAUSE_IMAGE_TOO_LARGE = 18, /* the new image does not fit the slot */
    SOW_CAUSE_CODEC_UNSUPPORTED = 19, /* the payload codec or its profile is unknown to the device */
    SOW_CAUSE_NO_SCRATCH = 20, /* the patch needs more flash scratch than the device has */
    SOW_CAUSE_DIGEST_BAD = 21, /* the payload digest does not match the manifest */
    SOW_CAUSE_SESSION_MIC_BAD = 22, /* the TS004 v2 block MIC does not match */
    SOW_CAUSE_PATCH_CORRUPT = 23, /* the patch stream is not valid */
    SOW_CAUSE_IMAGE_DIGEST_BAD = 24, /* the image in slot B does not have the digest of the manifest */
    SOW_CAUSE_IMAGE_INVALID = 25, /* the image in slot B is no valid MCUboot image */
    SOW_CAUSE_NO_PROGRESS = 26, /* the device was reset again and again while it verified or patched, and got no further */
    SOW_CAUSE_SELF_TEST_FAILED = 30, /* the new image failed its own self-test and was rolled back */
    SOW_CAUSE_BOOT_HANG = 31, /* the new image did not survive its boot attempts and was rolled back */
    SOW_CAUSE_NOT_CONFIRMED = 32, /* the new image was not confirmed before its deadline and was rolled back */
    SOW_CAUSE_NO_SERVICES = 33, /* the boot stub lacks the services that the application was linked for */
    SOW_CAUSE_DEFERRED_USER = 40, /* the user or the application put the update off */
    SOW_CAUSE_DEFERRED_BATTERY = 41, /* the battery is too low for the update */
    SOW_CAUSE_REFUSED = 42, /* the user or the application refused the update */
    SOW_CAUSE_LAST_ = 63
};

#endif
