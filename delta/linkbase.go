package delta

import "encoding/binary"

// guessLinkBase returns the address an image of Thumb code was linked at: the one that makes most
// of the odd words in it point at a PUSH with LR, where functions begin. votes is how many
// do; few votes mean that the image is something else.
func guessLinkBase(d []byte) (base uint32, votes int) {
	const most = 3000 // of either kind, to bound the work
	var entries, words []uint32
	for i := 0; i+2 <= len(d) && len(entries) < most; i += 2 {
		if h := half(d, i); h>>8 == 0xb5 || h == 0xe92d {
			entries = append(entries, uint32(i))
		}
	}
	seen := make(map[uint32]bool)
	for i := 0; i+4 <= len(d) && len(words) < most; i += 4 {
		v := binary.LittleEndian.Uint32(d[i:])
		if v&1 != 0 && v < 0xe0000000 && v>>28 != 2 && !seen[v] {
			seen[v] = true
			words = append(words, v&^1)
		}
	}
	count := make(map[uint32]int)
	for _, w := range words {
		for _, e := range entries {
			if b := w - e; b&0xff == 0 && w >= e {
				count[b]++
			}
		}
	}
	for b, n := range count {
		if n > votes || n == votes && b < base {
			base, votes = b, n
		}
	}
	return base, votes
}
