// Package canonical turns a pprof profile into values that compare equal exactly when two profiles
// say the same: every sample with its frames, labels and values spelled out, ids and table order gone.
// The decoder is google/pprof's own, independent of flue.
package canonical

import (
	"fmt"
	"sort"
	"strings"

	"github.com/google/pprof/profile"
)

type Sample struct {
	Stack  []string         `json:"stack"` // leaf first
	Labels []string         `json:"labels,omitempty"`
	Values map[string]int64 `json:"values"`
}

type Profile struct {
	SampleTypes  []string         `json:"sample_types"`
	PeriodType   string           `json:"period_type"`
	Period       int64            `json:"period"`
	TimeNanos    int64            `json:"time_nanos"`
	Duration     int64            `json:"duration_nanos"`
	Default      string           `json:"default_sample_type,omitempty"`
	Comments     []string         `json:"comments,omitempty"`
	DropFrames   string           `json:"drop_frames,omitempty"`
	KeepFrames   string           `json:"keep_frames,omitempty"`
	Totals       map[string]int64 `json:"totals"`
	SampleCount  int              `json:"sample_count"`
	Samples      []Sample         `json:"samples,omitempty"`
	Uncompressed int              `json:"uncompressed"`
}

func frame(l *profile.Location) []string {
	mapping := "-"
	if m := l.Mapping; m != nil {
		mapping = fmt.Sprintf("%s|%s|%x-%x@%x", m.File, m.BuildID, m.Start, m.Limit, m.Offset)
	}
	if len(l.Line) == 0 {
		return []string{fmt.Sprintf("0x%x [%s]", l.Address, mapping)}
	}
	var out []string
	for _, line := range l.Line {
		name, system, file, start := "", "", "", int64(0)
		if f := line.Function; f != nil {
			name, system, file, start = f.Name, f.SystemName, f.Filename, f.StartLine
		}
		out = append(out, fmt.Sprintf("%s|%s|%s:%d|%d|0x%x [%s]", name, system, file, line.Line, start, l.Address, mapping))
	}
	return out
}

func valueType(v *profile.ValueType) string {
	if v == nil {
		return "/"
	}
	return v.Type + "/" + v.Unit
}

type byKey struct {
	samples []Sample
	keys    []string
}

func (b *byKey) Len() int           { return len(b.keys) }
func (b *byKey) Less(i, j int) bool { return b.keys[i] < b.keys[j] }
func (b *byKey) Swap(i, j int) {
	b.keys[i], b.keys[j] = b.keys[j], b.keys[i]
	b.samples[i], b.samples[j] = b.samples[j], b.samples[i]
}

// Of spells out p; samples too when full.
func Of(p *profile.Profile, full bool) Profile {
	c := Profile{
		PeriodType: valueType(p.PeriodType), Period: p.Period, TimeNanos: p.TimeNanos, Duration: p.DurationNanos,
		Default: p.DefaultSampleType, Comments: p.Comments, DropFrames: p.DropFrames, KeepFrames: p.KeepFrames,
		Totals: map[string]int64{}, SampleCount: len(p.Sample),
	}
	for _, t := range p.SampleType {
		c.SampleTypes = append(c.SampleTypes, valueType(t))
	}
	var keys []string // one a sample: made once, not at every comparison
	for _, s := range p.Sample {
		values := map[string]int64{}
		for i, v := range s.Value {
			values[c.SampleTypes[i]] += v
			c.Totals[c.SampleTypes[i]] += v
		}
		if !full {
			continue
		}
		var stack []string
		for _, l := range s.Location {
			stack = append(stack, frame(l)...)
		}
		var labels []string
		for k, vs := range s.Label {
			for _, v := range vs {
				labels = append(labels, k+"="+v)
			}
		}
		for k, vs := range s.NumLabel {
			for i, v := range vs {
				unit := ""
				if i < len(s.NumUnit[k]) {
					unit = s.NumUnit[k][i]
				}
				labels = append(labels, fmt.Sprintf("%s=#%d %s", k, v, unit))
			}
		}
		sort.Strings(labels)
		sample := Sample{Stack: stack, Labels: labels, Values: values}
		c.Samples = append(c.Samples, sample)
		keys = append(keys, strings.Join(stack, "\n")+"\x00"+strings.Join(labels, "\n")+fmt.Sprint(values))
	}
	sort.Sort(&byKey{c.Samples, keys})
	return c
}
