from moestro.cli.main import run

run()
