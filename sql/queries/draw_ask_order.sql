-- Draws the order of a question, before its rows are read.
SELECT nextval('listener.ask_order') AS ask_order
