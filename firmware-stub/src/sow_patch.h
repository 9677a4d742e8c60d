// Firmware patch decoder: old image + stream -> new image, pulled a few bytes at a time.
//
// The format is docs/spec/patch.md. There is no header, digest or signature here: the caller
// authenticates the manifest and the stream before it starts and compares the digest of the new
// image afterwards. A damaged stream either fails or yields a wrong image; it never makes the
// decoder read or write outside of what it was given, and the work per byte is bounded.
//
// After a reset start again with sow_patch_init() and pull from byte 0: the decoder is
// deterministic, so the caller skips programming of pages that it already committed.
#ifndef SOW_PATCH_H
#define SOW_PATCH_H

#include <stdint.h>

#define SOW_PATCH_MAX_IMAGE 0x800000u // bytes, old or new

enum sow_patch_code {
    SOW_PATCH_OK       = 0,
    SOW_PATCH_E_PARAMS = -1, // unknown profile or options, or a size out of range
    SOW_PATCH_E_STREAM = -2, // the stream is truncated, too long or contradicts itself
    SOW_PATCH_E_IO     = -3, // a callback failed
    SOW_PATCH_E_WORK   = -4, // work memory too small or not aligned for a pointer
    SOW_PATCH_E_END    = -5  // more bytes asked for than the new image has
};

// From the manifest. Sizes and addresses in bytes.
struct sow_patch_params {
    uint8_t profile;
    uint8_t options;
    uint32_t base_size;
    uint32_t new_size;
    uint32_t link_base;    // address of byte 0 of both images, a multiple of 256
    uint32_t scratch_size; // flash lent to the decoder, a multiple of 64
};

// Offsets and lengths in bytes; callbacks return 0, or anything else to stop the decoder.
// They are called only from sow_patch_init() and sow_patch_read().
struct sow_patch_io {
    void *user; // handed back untouched
    // The old image, [0, base_size), in any order. Not called when base_size is 0.
    int (*read_base)(void *user, uint32_t off, void *buf, uint32_t n);
    // The stream, [0, stream_size), strictly forward.
    int (*read_stream)(void *user, uint32_t off, void *buf, uint32_t n);
    // The new image below what sow_patch_read() calls that have returned produced.
    int (*read_new)(void *user, uint32_t off, void *buf, uint32_t n);
    // Flash scratch, [0, scratch_size); all three may be NULL when scratch_size is 0. It is
    // erased whole, once, by sow_patch_init(); then every 64-byte block is programmed at most
    // once, aligned, in rising order.
    int (*scratch_erase)(void *user, uint32_t off, uint32_t n);
    int (*scratch_prog)(void *user, uint32_t off, const void *buf, uint32_t n);
    int (*scratch_read)(void *user, uint32_t off, void *buf, uint32_t n);
};

// Private; small. It holds no pointer to itself or to the params and io it was made from.
struct sow_patch {
    struct sow_patch_params prm;
    struct sow_patch_io io;
    uint32_t stream_size;
    void *work;
    uint32_t pos; // bytes of the new image produced
    int err;      // sticky
};

// Bytes of work memory the profile needs, or 0 when the decoder does not know the parameters.
uint32_t sow_patch_work_size(const struct sow_patch_params *prm);

// Start. work is aligned for a pointer, holds at least sow_patch_work_size() bytes and belongs to
// the decoder until the caller is done. Erases and programs the scratch when there is one.
// Returns SOW_PATCH_OK, _E_PARAMS, _E_WORK, _E_IO or _E_STREAM.
int sow_patch_init(struct sow_patch *p, const struct sow_patch_params *prm,
                   const struct sow_patch_io *io, uint32_t stream_size,
                   void *work, uint32_t work_size);

// Produce the next n bytes of the new image in out. Together with the last byte it checks that
// the stream is used up. Returns SOW_PATCH_OK, _E_STREAM, _E_IO or _E_END; every error but
// _E_END is final and what is in out is then undefined.
int sow_patch_read(struct sow_patch *p, uint8_t *out, uint32_t n);

#endif
