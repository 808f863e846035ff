// The steps of a conversation: each is told when it is done, and what fails or takes too long ends the process.
class Steps {
    static final int LIMIT = 60;
    static volatile String step = "start";

    interface Talk {
        void talk() throws Exception;
    }

    static void ok(String name) {
        System.out.println("ok " + name);
        step = "after " + name;
    }

    static void run(Talk talk) {
        Thread watch = new Thread(() -> {
            try {
                Thread.sleep(LIMIT * 1000L);
            } catch (InterruptedException e) {
                return;
            }
            System.out.println("FAILED " + step + ": not done within " + LIMIT + " s");
            Runtime.getRuntime().halt(1);
        });
        watch.setDaemon(true);
        watch.start();
        try {
            talk.talk();
        } catch (Throwable e) {
            System.out.println("FAILED " + step + ": " + e);
            e.printStackTrace(System.out);
            System.exit(1);
        }
        System.exit(0);
    }
}
