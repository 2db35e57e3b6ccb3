// Command centrifuge relays a channel of Redis to every client of a Centrifuge server, which has subscribed them all.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/redis/rueidis"
)

const room = "run"

func main() {
	listen := flag.String("listen", "", "address and port to serve on")
	redis := flag.String("redis", "", "URL of the Redis to read from")
	channel := flag.String("channel", "", "channel of Redis to relay")
	delay := flag.Duration("write-delay", 0, "how long a client's writer collects messages")
	most := flag.Int("max-messages", 0, "messages in a frame at the most; 0: what the library does by itself")
	flag.Parse()
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	node, err := newNode(*delay, *most)
	if err != nil {
		log.Fatal(err)
	}
	go serve(node, *listen)
	if err := relay(stop, node, *redis, *channel); err != nil && stop.Err() == nil {
		log.Fatal(err)
	}
}

func newNode(delay time.Duration, most int) (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{},
			Subscriptions:      map[string]centrifuge.SubscribeOptions{room: {}},
			WriteDelay:         delay,
			MaxMessagesInFrame: most,
		}, nil
	})
	return node, node.Run()
}

func serve(node *centrifuge.Node, listen string) {
	http.Handle("/socket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	log.Fatal(http.ListenAndServe(listen, nil))
}

// More than any trial publishes: who reads from Redis must not wait for thousands of sockets, or its connection is given
// up as dead, and with it all that is published until it is back.
const mostWaiting = 1_000_000

func relay(stop context.Context, node *centrifuge.Node, url, channel string) error {
	options, err := rueidis.ParseURL(url)
	if err != nil {
		return err
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		return err
	}
	defer client.Close()
	waiting := make(chan []byte, mostWaiting)
	go func() {
		for message := range waiting {
			if _, err := node.Publish(room, message); err != nil {
				log.Print(err)
			}
		}
	}()
	subscribe := client.B().Subscribe().Channel(channel).Build()
	return client.Receive(stop, subscribe, func(message rueidis.PubSubMessage) {
		waiting <- []byte(message.Message)
	})
}
