package prepare

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/image"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
)

// Campaign is a campaign file that can be carried out.
type Campaign struct {
	File     config.Campaign
	Schedule plan.Schedule

	doc      *config.Document
	updates  []plan.Update
	slots    []int // number of each update in the file
	devices  map[network.EUI64]*inventory.Device
	gateways map[airtime.Region][]network.EUI64
	caps     network.Capabilities
	classB   bool      // all devices can be in class B
	begin    time.Time // not before, because of other campaigns; zero: at once
}

// read parses a campaign file and reads its bundles.
func read(f File) *Campaign {
	c := &Campaign{devices: map[network.EUI64]*inventory.Device{}}
	c.File, c.doc = config.ParseCampaign(f.Name, f.Text)
	names := map[string]string{} // file by name
	for i, b := range c.File.Bundles {
		key := fmt.Sprintf("bundle[%d]", i)
		name, field := b.File, key+".file"
		if name == "" {
			name, field = b.Raw, key+".raw"
		}
		if name == "" {
			continue
		}
		at, block, err := f.Read(name)
		if err == nil && len(block) == 0 {
			err = fmt.Errorf("the file is empty")
		}
		if err != nil {
			remedy := "make it with `sower sign`, or correct the path"
			if b.File == "" {
				remedy = "correct the path"
			}
			c.doc.Add(field, remedy, "bundle %s: %s", at, err)
			continue
		}
		u := plan.Update{Name: path.Base(strings.ReplaceAll(name, `\`, "/")), Block: block}
		if other, taken := names[u.Name]; taken && other != name {
			u.Name = name // a plan names bundles, and must not mean two by one name
		}
		names[u.Name] = name
		if b.File == "" {
			l := c.File.Raw
			u.Raw = &plan.RawBlock{Version: (*bundle.Version)(b.Version), MaxM: l.Fragments, MaxFragBytes: l.FragSize, MaxLost: l.Redundancy}
		}
		for _, v := range b.BaseVersions {
			u.Bases = append(u.Bases, bundle.Version(v))
		}
		if b.BaseImage != "" {
			v, err := baseVersion(f.Read, b.BaseImage, block)
			if err != nil {
				c.doc.Add(key+".base_image", "name the image that the patch was made against", "%s", err)
				continue
			}
			u.Bases = append(u.Bases, v)
		}
		c.updates, c.slots = append(c.updates, u), append(c.slots, i)
	}
	return c
}

// key translates the number of an update into that of its bundle in the file.
func (c *Campaign) key(key string) string {
	var i int
	if n, _ := fmt.Sscanf(key, "bundle[%d]", &i); n != 1 || i >= len(c.slots) {
		return key
	}
	return fmt.Sprintf("bundle[%d]%s", c.slots[i], key[strings.IndexByte(key, ']')+1:])
}

// baseVersion returns the version of an image, if it is the base of a bundle.
func baseVersion(read Source, name string, block []byte) (bundle.Version, error) {
	at, file, err := read(name)
	if err != nil {
		return 0, fmt.Errorf("base image %s: %w", at, err)
	}
	im, err := image.Read(file)
	if err != nil {
		return 0, fmt.Errorf("base image %s: %w", at, err)
	}
	if m, err := bundle.ParseManifest(block); err == nil && m.Codec == bundle.CodecPatch {
		if sum := sha256.Sum256(im.Data); !bytes.Equal(sum[:len(m.BaseDigest)], m.BaseDigest[:]) {
			return 0, fmt.Errorf("base image %s is not the one of the patch: SHA-256 %x…, want %x…", at, sum[:8], m.BaseDigest)
		}
	}
	head, err := mcuboot.Parse(im.Data)
	if err != nil {
		return 0, fmt.Errorf("base image %s: %w; write base_versions instead", at, err)
	}
	return bundle.MakeVersion(head.Major, head.Minor, head.Revision), nil
}
