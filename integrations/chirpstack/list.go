package chirpstack

import (
	"context"
	"fmt"

	"github.com/sower-fuota/sower/engine/network"
)

const (
	// pageSize is how many items a list request asks for. 0 would give none, and there is no upper limit.
	pageSize = 200
	// passes is how often a list is read anew that does not come out complete.
	passes = 20
)

// collect reads a list to its end, page by page, and returns each item once. Pages of an order with ties, which
// is any order but that of an id, skip some items and repeat others, and lists change while they are read: what
// several passes have found is put together until nothing is missing.
func collect[T any](ctx context.Context, what string, id func(T) string,
	page func(ctx context.Context, limit, offset uint32) (items []T, total uint32, err error)) ([]T, error) {
	var out []T
	seen := map[string]bool{}
	for range passes {
		var total, offset uint32
		for {
			items, n, err := page(ctx, pageSize, offset)
			if err != nil {
				return nil, err
			}
			for _, item := range items {
				if key := id(item); !seen[key] || !defended("pages-repeat") {
					seen[key] = true
					out = append(out, item)
				}
			}
			total = n
			offset += uint32(len(items))
			if len(items) == 0 || offset >= total || !defended("pages-follow") {
				break
			}
		}
		// More than the total: some were deleted meanwhile.
		if len(seen) >= int(total) || !defended("pages-complete") {
			return out, nil
		}
	}
	return nil, fmt.Errorf("chirpstack: %s: %w: the list did not come out complete in %d attempts", what, network.ErrUnavailable, passes)
}
