from vaezoo.run import main

main()
