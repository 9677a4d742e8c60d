package plan

import (
	"fmt"

	"github.com/sower-fuota/sower/bundle"
)

// RawBlock is what is known of a block that is no bundle, and of the decoders of stock stacks that are to receive it.
// What is 0 is not known and limits nothing.
type RawBlock struct {
	Version      *bundle.Version // that the devices run afterwards; nil: not known
	MaxM         int             // most data fragments (FRAG_MAX_NB)
	MaxFragBytes int             // largest fragment (FRAG_MAX_SIZE)
	MaxLost      int             // most data fragments that a device may lose (FRAG_MAX_REDUNDANCY)
}

// limits returns the largest fragment, given what the data rate carries, and the most of them; 0: no limit.
func (r *RawBlock) limits(size int) (fragSize, m int) {
	if r == nil {
		return size, 0
	}
	if r.MaxFragBytes > 0 {
		size = min(size, r.MaxFragBytes)
	}
	return size, r.MaxM
}

// layout returns what the devices of an update hold. Of devices without the device library nothing is known.
func (f *fleet) layout(update int) (Layout, bool) {
	if f.Updates[update].Raw != nil {
		return Layout{}, false
	}
	l, ok := f.Layouts[f.manifests[update].Hardware]
	return l, ok
}

// source is the key of the file that an update was read from.
func (f *fleet) source(update int) string {
	if f.Updates[update].Raw != nil {
		return fmt.Sprintf("bundle[%d].raw", update)
	}
	return fmt.Sprintf("bundle[%d].file", update)
}

func (f *fleet) payload(update int) string {
	if f.Updates[update].Raw != nil {
		return "raw"
	}
	return f.manifests[update].Codec.String()
}

// target returns the version that devices run after the campaign, if it is known.
func (f *fleet) target() (v bundle.Version, known bool) {
	switch {
	case len(f.manifests) == 0:
		return 0, false
	case f.Updates[0].Raw == nil:
		return f.manifests[0].Version, true
	case f.Updates[0].Raw.Version == nil:
		return 0, false
	}
	return *f.Updates[0].Raw.Version, true
}

// rawUpdate judges a raw block.
func (f *fleet) rawUpdate(i int) {
	u := f.Updates[i]
	if len(f.Updates) > 1 {
		f.problem(f.source(i), "make a campaign of its own for it", "%s is a raw block: nothing tells which devices it suits, and which another one", u.Name)
	}
	if len(u.Block) == 0 {
		f.problem(f.source(i), "name the file to send", "%s is empty", u.Name)
	}
	if f.out.Target = "unknown"; u.Raw.Version != nil {
		f.out.Target = u.Raw.Version.String()
	}
	if u.Raw.MaxFragBytes > 0 && f.FragSize > u.Raw.MaxFragBytes {
		f.problem("radio.fragment_bytes", "write at most that, or leave it out", "the devices hold fragments of at most %d bytes, not %d", u.Raw.MaxFragBytes, f.FragSize)
	}
	if u.Raw.MaxM == 0 || u.Raw.MaxFragBytes == 0 || u.Raw.MaxLost == 0 {
		f.warn("%s: [raw] does not say for how many fragments, of how many bytes and with how many lost the decoder of the devices was built, so nothing checks that it fits", u.Name)
	}
}

// warnPackages warns of devices of a raw-block campaign whose packages are guessed.
func (f *fleet) warnPackages() {
	n := 0
	for _, w := range f.waves {
		for _, m := range w.members {
			if m.Packages == 0 {
				n++
			}
		}
	}
	if n > 0 && f.Updates[0].Raw != nil {
		f.warn("%d devices have not told the version of their packages: v%d is assumed, with another one the set-up fails; many stock stacks have v1, see radio.packages", n, f.Packages)
	}
}
