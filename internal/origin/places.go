package origin

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// lastTime is for how long a place that failed is asked after the others.
const lastTime = 30 * time.Second

// inTurnLocked returns places in the order in which they are to be asked: those last that have failed lately. A place that does not answer
// would else cost its time with every request.
func (o *Origin) inTurnLocked(places []Place) []Place {
	now := time.Now()
	var well, ill []Place
	for _, p := range places {
		if now.Before(o.ill[p]) {
			ill = append(ill, p)
		} else {
			well = append(well, p)
		}
	}
	return append(well, ill...)
}

// noteTurn notes how a request to a place has ended, if it was not ended by who asked.
func (o *Origin) noteTurn(ctx context.Context, p Place, err error) {
	if ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(o.ill, func(q Place, until time.Time) bool { return q == p || now.After(until) })
	if err != nil {
		o.ill[p] = now.Add(lastTime)
	}
}

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

// placesLocked returns where an image is, in turn; what it claims itself comes last all the same.
func (im *image) placesLocked(o *Origin) []Place {
	return withClaims(o.inTurnLocked(slices.Concat(im.always, im.located)), o.inTurnLocked(im.claims))
}

// placesLocked are those of all images that have the seed: those that are known, and then, as many again, those that images claim. It is
// called with Origin.mu.
func (s *opened) placesLocked(o *Origin) []Place {
	users := slices.SortedFunc(maps.Keys(s.users), func(a, b *image) int { return strings.Compare(a.record.KeyString(), b.record.KeyString()) })
	var known, claimed []Place
	for _, im := range users {
		known = appendPlaces(known, im.always, im.located)
		claimed = appendPlaces(claimed, im.claims)
	}
	return withClaims(o.inTurnLocked(known), o.inTurnLocked(claimed))
}

func appendPlaces(list []Place, more ...[]Place) []Place {
	for _, p := range slices.Concat(more...) {
		if !slices.Contains(list, p) && len(list) < maxPlaces {
			list = append(list, p)
		}
	}
	return list
}
