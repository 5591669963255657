package origin

import (
	"maps"
	"slices"
	"strings"
)

// places returns where an image is. What it claims itself comes last.
func (im *image) places() []Place {
	return withClaims(slices.Concat(im.always, im.located), im.claims)
}

// withClaims returns places, and then those of others that are not the same by their name.
func withClaims(places, claims []Place) []Place {
	for _, p := range claims {
		if !slices.ContainsFunc(places, func(q Place) bool { return q.String() == p.String() }) {
			places = append(places, p)
		}
	}
	return places
}

// placesLocked are those of all images that have the seed: those that are known, and then, as many again, those that images claim. It is
// called with Origin.mu.
func (s *opened) placesLocked() []Place {
	users := slices.SortedFunc(maps.Keys(s.users), func(a, b *image) int { return strings.Compare(a.record.KeyString(), b.record.KeyString()) })
	var known, claimed []Place
	for _, im := range users {
		known = appendPlaces(known, im.always, im.located)
		claimed = appendPlaces(claimed, im.claims)
	}
	return withClaims(known, claimed)
}

func appendPlaces(list []Place, more ...[]Place) []Place {
	for _, p := range slices.Concat(more...) {
		if !slices.Contains(list, p) && len(list) < maxPlaces {
			list = append(list, p)
		}
	}
	return list
}
