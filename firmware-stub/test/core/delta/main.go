// Command delta writes, as a C header, two small images and the patch between them: what the power-cut tests feed
// the real decoder. It is run by the Makefile, so that the tests follow the encoder of the day.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/sower-fuota/sower/delta"
)

const linkBase = 0x08000000

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "delta: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	rnd := rand.New(rand.NewPCG(1, 2))
	body := make([]byte, 800)
	for i := range body {
		body[i] = byte(rnd.Uint32())
	}
	old := image(0x0100, body)
	changed := bytes.Clone(body)
	for range 20 {
		changed[rnd.IntN(len(changed))] = byte(rnd.Uint32())
	}
	moved := append(bytes.Clone(changed[300:700]), changed[:330]...)
	updated := image(0x0200, append(moved, changed[700:]...))
	base := uint32(linkBase)
	params, stream, err := delta.Encode(old, updated, delta.Options{RAM: 5120, LinkBase: &base})
	if err != nil {
		return err
	}
	if params.Profile == 0 || params.ScratchBytes == 0 || len(stream) > len(updated)/2 {
		return fmt.Errorf("a patch of %d bytes, %+v: not what the tests are for", len(stream), params)
	}
	fmt.Printf("/* Made by firmware-stub/test/core/delta. */\n#include <stdint.h>\n")
	fmt.Printf("enum { DELTA_PROFILE = %d, DELTA_OPTIONS = %d, DELTA_RAM = %d, DELTA_SCRATCH = %d, DELTA_LINK_BASE = %#x };\n",
		params.Profile, params.Options, params.RAMBytes, params.ScratchBytes, linkBase)
	array("delta_old", old)
	array("delta_new", updated)
	array("delta_stream", stream)
	return nil
}

// image is a MCUboot image without signature.
func image(version uint16, body []byte) []byte {
	b := make([]byte, 32, 72+len(body))
	binary.LittleEndian.PutUint32(b, 0x96f3b83d)
	binary.LittleEndian.PutUint16(b[8:], 32)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(body)))
	binary.BigEndian.PutUint16(b[20:], version)
	b = append(b, body...)
	digest := sha256.Sum256(b)
	b = append(b, 0x07, 0x69, 40, 0, 0x10, 0, 32, 0)
	return append(b, digest[:]...)
}

func array(name string, b []byte) {
	fmt.Printf("static const uint8_t %s[%d] = {", name, len(b))
	for i, v := range b {
		if i%20 == 0 {
			fmt.Print("\n    ")
		}
		fmt.Printf("%#02x,", v)
	}
	fmt.Print("\n};\n")
}
