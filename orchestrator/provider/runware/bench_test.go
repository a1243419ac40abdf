package runware_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

const benchInput = `{"positivePrompt":"a red fox in neon rain, 35mm","width":1024,"height":1024,"steps":28,"CFGScale":3.5,"outputType":"base64Data"}`

func BenchmarkParse(b *testing.B) {
	p := runware.New(runware.Config{Key: "sk-secret"})
	task := events.TaskID(generation, 0, 1)
	for name, body := range map[string]string{
		"inline":  `{"data":[{"taskType":"imageInference","taskUUID":"` + task + `","imageUUID":"` + task + `","seed":4242,"cost":0.0013,"NSFWContent":false,"imageBase64Data":"$inline:1"}]}`,
		"URL":     `{"taskType":"imageInference","taskUUID":"` + task + `","imageUUID":"` + task + `","status":"success","seed":4242,"cost":0.0013,"imageURL":"https://im.runware.ai/image/ws/2/ii/4c0f3b9a.png"}`,
		"failure": `{"errors":[{"code":"inferenceError","message":"the model failed","taskUUID":"` + task + `","taskType":"imageInference"}]}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := p.Parse([]byte(body)); err != nil || len(got) != 1 {
					b.Fatal(got, err)
				}
			}
		})
	}
}

// benchCall is a call for n outputs.
func benchCall(n int) (c provider.Call, tasks []string) {
	c = provider.Call{Generation: generation, Model: "runware:101@1", Input: json.RawMessage(benchInput), Webhook: "https://us.test/hooks/runware/0123456789abcdef"}
	for slot := range n {
		tasks = append(tasks, events.TaskID(generation, slot, 1))
		c.Tasks = append(c.Tasks, events.Task{Slot: slot, Try: 1, ID: tasks[slot]})
	}
	return c, tasks
}

func BenchmarkCreate(b *testing.B) {
	p := runware.New(runware.Config{Key: "sk-secret"})
	for _, n := range []int{1, 4} {
		c, tasks := benchCall(n)
		var said []string
		for _, t := range tasks {
			said = append(said, `{"taskType":"imageInference","taskUUID":"`+t+`"}`)
		}
		answer := []byte(`{"data":[` + strings.Join(said, ",") + `]}`)
		b.Run(fmt.Sprintf("check/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Check(c.Model, c.Input, n); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("payload/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := runware.Payload(c); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("answer/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a, err := p.Created(tasks, answer); err != nil || len(a.Accepted) != n {
					b.Fatal(a, err)
				}
			}
		})
	}
}
