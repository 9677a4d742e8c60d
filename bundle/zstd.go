package bundle

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds what a decoder must remember of its output, in bytes.
const zstdWindow = 1 << 20

// compress returns the zstd frame of an image: one frame, its content size in the header, a window of at most
// 1 MiB, no dictionary and no checksum. The same image gives the same bytes.
func compress(image []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(zstdWindow),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(len(image) <= zstdWindow)) // a single segment names its size, however small
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return enc.EncodeAll(image, nil), nil
}

// decompress is the inverse of compress for an image of size bytes. It refuses what compress does not write and
// never holds more than the image and a window.
func decompress(frame []byte, size int) ([]byte, error) {
	var h zstd.Header
	switch err := h.Decode(frame); {
	case err != nil:
		return nil, err
	case h.Skippable:
		return nil, errors.New("a skippable frame")
	case h.DictionaryID != 0:
		return nil, fmt.Errorf("dictionary %d is needed", h.DictionaryID)
	case !h.HasFCS || h.FrameContentSize != uint64(size):
		return nil, fmt.Errorf("a frame of %d bytes, the manifest says %d", h.FrameContentSize, size)
	case h.WindowSize > zstdWindow:
		return nil, fmt.Errorf("a window of %d bytes, at most %d", h.WindowSize, zstdWindow)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(size, zstdWindow))),
		zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(frame, make([]byte, 0, size))
}
