package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/genstream/genstream/events/natsd/natsdtest"
)

// trouble is what befalls a scenario: the cluster, or processes of the program.
type trouble struct {
	name string
	make func(ctx context.Context, s *scenario, r *rand.Rand)
}

// troubles are all kinds. Their order is part of the number of a case.
func troubles() (all []trouble) {
	for _, t := range natsdtest.Troubles() {
		all = append(all, trouble{t.Name, func(ctx context.Context, s *scenario, r *rand.Rand) { t.Make(ctx, s.cluster, r) }})
	}
	kill := func(p *process) { p.signal(syscall.SIGKILL) }
	pause := func(p *process) { p.signal(syscall.SIGSTOP) }
	sever := func(p *process) { p.link.Sever() }
	silence := func(p *process) { p.link.Silence() }
	const orchestrators, ingresses, apis = "o", "i", "a"
	return append(all,
		trouble{"kill an orchestrator", befalls(kill, orchestrators, time.Second, 5*time.Second)},
		trouble{"pause an orchestrator", befalls(pause, orchestrators, 5*time.Second, 45*time.Second)},
		trouble{"silence an orchestrator", befalls(silence, orchestrators, 5*time.Second, 45*time.Second)},
		trouble{"cut an ingress off", befalls(sever, ingresses, 2*time.Second, 20*time.Second)},
		trouble{"silence an ingress", befalls(silence, ingresses, 5*time.Second, 45*time.Second)},
		trouble{"kill an ingress or the API", befalls(kill, ingresses+apis, time.Second, 5*time.Second)},
		trouble{"silence the API", befalls(silence, apis, 5*time.Second, 45*time.Second)},
		trouble{"cut all clients off", func(ctx context.Context, s *scenario, r *rand.Rand) {
			for ctx.Err() == nil {
				for _, p := range s.parts {
					p.link.Sever()
				}
				rest(ctx, time.Duration(2+r.IntN(24))*time.Second)
				for _, p := range s.parts {
					p.link.Heal()
				}
				rest(ctx, time.Duration(1+r.IntN(8))*time.Second)
			}
		}},
	)
}

// befalls harms one process of the kinds, whose names begin with one of the
// letters, for a time between least and most, heals it, and begins again.
func befalls(harm func(*process), kinds string, least, most time.Duration) func(context.Context, *scenario, *rand.Rand) {
	return func(ctx context.Context, s *scenario, r *rand.Rand) {
		var some []*process
		for _, p := range s.parts {
			for _, k := range kinds {
				if rune(p.name[0]) == k {
					some = append(some, p)
				}
			}
		}
		for ctx.Err() == nil {
			p := some[r.IntN(len(some))]
			harm(p)
			rest(ctx, least+time.Duration(r.Int64N(int64(most-least))))
			p.heal()
			rest(ctx, time.Second+time.Duration(r.Int64N(int64(5*time.Second))))
		}
	}
}
