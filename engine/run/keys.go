package run

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sower-fuota/sower/engine/network"
)

// NewGroupKeys draws address and key of a multicast group. random must be crypto/rand.Reader in production: who
// guesses the key can send to the group. The address is in the range of NetID 000000, which is for private
// networks; that a device of the network has the same one does no harm, because its keys differ.
func NewGroupKeys(random io.Reader) (mcAddr uint32, key network.Key, err error) {
	var b [4]byte
	for key == (network.Key{}) {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return 0, network.Key{}, fmt.Errorf("run: group address: %w", err)
		}
		if _, err := io.ReadFull(random, key[:]); err != nil {
			return 0, network.Key{}, fmt.Errorf("run: group key: %w", err)
		}
	}
	return binary.BigEndian.Uint32(b[:]) & 0x01ffffff, key, nil
}
