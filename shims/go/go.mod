module tidegate/v2

go 1.21
