module heartbus.example

go 1.19
