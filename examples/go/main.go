// A server and a client in one program: the client says hello, the server answers, both tell what they saw.
package main

import (
	"errors"
	"fmt"
	"log"

	"heartbus.example/heartbus"
)

func main() {
	log.SetFlags(0)
	messages, err := heartbus.StartLog(2)
	must(err)
	server, err := heartbus.StartServer(heartbus.Config{"host": "127.0.0.1", "port": 0},
		heartbus.OnRegister|heartbus.OnData|heartbus.OnLeft)
	must(err)
	port, err := server.Port()
	must(err)
	clients, err := heartbus.StartClients()
	must(err)
	me, err := clients.Connect(heartbus.Config{"port": port, "node_id": "gopher"})
	must(err)

	finished, left := false, false
	for !finished || !left {
		select {
		case event := <-server.Events:
			fmt.Printf("server: %s %s %s\n", event.Node, event.Name, event.Payload)
			switch event.Name {
			case "data":
				must(server.Send(event.Node, []byte("hello "+event.Node)))
			case "unregister":
				left = true
			}
		case event := <-messages.Events:
			fmt.Printf("log: %s %s\n", event.Text, event.Payload)
		case event := <-clients.Events:
			fmt.Printf("client: %s %s\n", event.Name, event.Payload)
			switch event.Name {
			case "client_register":
				must(clients.Send(me, []byte("hello")))
			case "client_data":
				must(clients.Disconnect(me))
			case "client_finished":
				finished = true
			}
		}
	}

	var refused *heartbus.Error
	if err := server.Send("nobody", nil); errors.As(err, &refused) {
		fmt.Printf("refused: %s, %s\n", refused.Status, refused.Text)
	}
	must(clients.Close())
	must(server.Close())
	must(messages.Close())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
