package bundle_test

import (
	"bytes"
	"fmt"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/delta"
)

// A signed patch, from two images to what a device runs.
func Example() {
	key, err := bundle.GenerateKey()
	if err != nil {
		panic(err)
	}
	old := bytes.Repeat([]byte("the firmware that devices run "), 40)
	new := bytes.Replace(old, []byte("run"), []byte("ran"), 1)

	patch, err := delta.NewFile(old, new, delta.Options{})
	if err != nil {
		panic(err)
	}
	target := bundle.Target{Class: 0x1001, Hardware: 3, KeyID: 1, Version: bundle.MakeVersion(1, 1, 0), Sequence: 2}
	block, err := bundle.Patch(target, patch, new, key)
	if err != nil {
		panic(err)
	}

	manifest, payload, err := bundle.Verify(block, &key.PublicKey)
	if err != nil {
		panic(err)
	}
	image, err := manifest.Image(payload, old)
	fmt.Println(manifest.Codec, manifest.Version, len(block), len(payload), bytes.Equal(image, new), err)

	block[20] ^= 1 // the expiry
	_, _, err = bundle.Verify(block, &key.PublicKey)
	fmt.Println(err)
	// Output:
	// patch 1.1.0 164 4 true <nil>
	// bundle: signature does not verify
}
