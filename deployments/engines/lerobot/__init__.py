"""LeRobot's policies as chunk policies: their folder, their package and their processors, in a replica of their own."""
