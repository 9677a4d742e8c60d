package delta_test

import (
	"bytes"
	"fmt"

	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/delta/internal/sample"
)

// Two releases of a firmware, and a device with 16 KiB of memory for the patch decoder.
func Example() {
	old, new := sample.Pair(1, 400, 20)
	params, stream, err := delta.Encode(old, new, delta.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes of patch for an image of %d bytes\n", len(stream), len(new))
	fmt.Printf("%s, %d bytes of memory, %d of flash scratch\n", params.Describe(), params.RAMBytes, params.ScratchBytes)

	report, err := delta.Inspect(params, old, stream)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d segments, %.1f s on a Cortex-M4 at 80 MHz\n", report.Segments, float64(report.Cycles)/80e6)

	back, err := delta.Decode(params, old, stream)
	fmt.Println(bytes.Equal(back, new), err)
	// Output:
	// 210 bytes of patch for an image of 39728 bytes
	// profile 3, Thumb at 0x08004000, window 16384 bytes, map in flash, 7936 bytes of memory, 128 of flash scratch
	// 15 segments, 0.6 s on a Cortex-M4 at 80 MHz
	// true <nil>
}
