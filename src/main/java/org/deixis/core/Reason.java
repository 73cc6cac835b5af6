package org.deixis.core;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;

/** What an exception of the JDK or of a library says, as a part of a one-line message. */
public final class Reason {
  private Reason() {}

  /** Why a file could not be used: several exceptions of the JDK hold no more than its name. */
  public static String of(IOException e) {
    if (e instanceof NoSuchFileException) {
      return "no such file or folder";
    }
    if (e instanceof AccessDeniedException) {
      return "permission denied";
    }
    if (e instanceof FileAlreadyExistsException) {
      return "something of the name " + e.getMessage() + " is there and is no folder";
    }
    if (e instanceof NotDirectoryException) {
      return "it is no folder";
    }
    if (e instanceof DirectoryNotEmptyException) {
      return "the folder is not empty";
    }
    if (e instanceof FileSystemException f && f.getReason() != null) {
      return oneLine(f.getReason());
    }
    return e.getMessage() == null ? e.getClass().getSimpleName() : oneLine(e.getMessage());
  }

  /** A message in one line, without the JSON parser's notes on where its text came from. */
  public static String oneLine(String message) {
    return message == null
        ? "no reason given"
        : message
            .replaceAll("\\s*\\(start marker at \\[Source: [^\\]]*\\]\\)", "")
            .replaceAll("\\s*at \\[Source: [^\\]]*\\]", "")
            .strip()
            .replaceAll("\\s+", " ");
  }
}
